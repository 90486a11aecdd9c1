"""
Deployments: a release becomes instances that answer behind one address, and the former one serves until then.

`rollout` changes what is live; `keeper` runs the instances that the database wants; `caddy` and
`routing` lead traffic to them; `health` asks whether they answer.
"""
