"""The database: tables, transactions, migrations, and who is woken by a commit."""
