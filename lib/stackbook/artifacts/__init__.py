"""Components: the catalogue, the cache, downloads, builds, images."""
