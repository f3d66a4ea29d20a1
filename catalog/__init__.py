"""What each silo offers, so that partners find each other without showing data."""
