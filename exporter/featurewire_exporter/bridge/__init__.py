"""A map from one version's vectors into an older version's space, served beside the vectors.

`views` makes pictures and crops of them, `maps` fits maps between their vectors, `retention`
measures what search in the old index keeps, and `fit` chooses, measures and says what came out.
"""
