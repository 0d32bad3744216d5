"""What the tests share: archives, registries, clusters, and the programs, as users have them."""
