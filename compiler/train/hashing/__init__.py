"""Training that computes only the neurons which hash tables say will answer, forward and backward.

Source: Scalable and Sustainable Deep Learning via Randomized Hashing (Spring & Shrivastava, KDD 2017); for a wide
output SLIDE: In Defense of Smart Algorithms over Hardware Acceleration (Chen et al., MLSys 2020).
"""
