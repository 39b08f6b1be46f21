"""Networks from elsewhere: torch modules and npz files."""
