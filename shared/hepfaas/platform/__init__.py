"""Everything outside: stores, settings, clock."""
