"""Files of requests: read whatever format they are in, and written from a run."""
