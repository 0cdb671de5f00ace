"""Measuring: how fast (`longwave bench`), how exact (`longwave numerics`), and the bounds for both (`tolerances`)."""
