"""The HTTP face: ``/v1`` over the same files. Loaded only where it is used; needs the extra ``api``."""
