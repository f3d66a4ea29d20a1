"""Documents that the outside asks for, filled from what a consortium and its runs leave behind."""
