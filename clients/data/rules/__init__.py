"""A data set's labels, which of its columns leave the connector, and what is done to them first."""
