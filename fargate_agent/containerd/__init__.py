"""containerd's API: dataclasses in and out, no policy; no gRPC type leaves the package.

`client.Containerd` is the way in. It holds one object per service, each in a module of its name.
"""
