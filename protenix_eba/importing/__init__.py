"""Import of MD of any origin into the layout that everything else reads; no torch, no Protenix."""
