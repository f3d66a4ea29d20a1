"""Where a silo's rows come from: connectors, and the partitions that share one data set out in simulation."""
