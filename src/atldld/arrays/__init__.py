"""The xarray side: lazy arrays over section datasets."""
