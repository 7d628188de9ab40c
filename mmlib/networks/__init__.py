"""Network pieces that MONAI lacks, shared by methods."""
