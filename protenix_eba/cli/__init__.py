"""The commands `protenix-eba` and `protenix-train`."""
