"""One file per paper: network, loss and provenance. A method never imports another method."""
