"""The gateway's routes beside the request path: FastAPI, one module for each group."""
