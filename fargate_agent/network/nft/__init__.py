"""The packet filter of the kernel (nftables), spoken to by nfnetlink without a program or library.

`attributes` writes the parts of messages, `expressions` what a rule is made of, `objects` tables,
chains, rules and sets, and `connection` sends them, many in one transaction.
"""
