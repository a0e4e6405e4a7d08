"""A program that unpacks one layer: it reads the layer, and writes files into one directory.

It runs as a process for each layer, which is confined before it reads the first byte (`confine`).
It imports nothing but the standard library and the libraries that decompress, for it starts often.

It does what containerd's `Apply` does for well-formed layers, step by step, so that the trees are
equal. Whatever it doesn't know it refuses (`UnknownError`), and containerd unpacks the layer
instead.

Source: containerd 1.6, archive/tar.go, archive/tar_unix.go, archive/tar_opts_linux.go; Go,
archive/tar/reader.go.
"""
