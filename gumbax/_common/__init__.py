"""What every room needs: argument errors, tangents, meshes, records, versions."""
