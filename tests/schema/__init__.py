"""What every row of the schema owes."""
