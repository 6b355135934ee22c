"""Everything outside: stores, settings, identity, HTTP, clock."""
