"""The mathematics of privacy, pure: no files, no clocks, no Flower, nothing else of Quire's."""
