"""The control plane's websocket: messages in, state changes out."""
