"""Search of architectures by gradient, one path at a time, with the array's own cycles in the loss.

Source: ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware (Cai et al., ICLR 2019).
"""
