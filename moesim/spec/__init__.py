"""What the user wrote: the only home of pydantic and YAML."""
