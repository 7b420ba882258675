"""Exchange with other programs: frame ranges for upscalers and back (`ranges`), cut lists for editors (`cut_lists`)."""
