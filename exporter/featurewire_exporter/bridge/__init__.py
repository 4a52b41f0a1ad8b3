"""A map from one version's vectors into an older version's space, served as a second signature.

`embedding` computes the vectors of pictures and crops, `maps` fits maps between them, `retention`
says what search in the old index keeps, and `fit` chooses and measures.
"""
