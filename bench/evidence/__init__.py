"""What low precision costs on real text: the scripts behind the tables of docs/low_precision.md."""
