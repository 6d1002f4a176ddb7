"""`paddle-sparse doctor`: what is installed, what of it does not work together, and what to do about it.

May import `errors` and `utils`, and `deploy` once it is known that Paddle can be imported. Downloads nothing.
A combination of versions that does not work goes to `versions.RULES`, anything else that can be looked at to `examine`.
"""
