"""Which file is next: plain code, without a loop, a clock or a disk."""
