"""The product on a Linux machine of its own: a virtual machine that boots Debian with systemd.

`python -m tests.vm` builds the machine, installs the checkout in it and looks at what the installed
programs do, from outside.
"""
