"""What engines do where a user says nothing, by version: tables, and how they are looked up."""
