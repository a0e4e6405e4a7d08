"""Archives of images: tar files that may be compressed, and the images in them."""
