"""One server for all five generations: OpenAI's API and a page to talk on.

stage       loads the models, listens, and drains when it is told to stop
app         the routes, and what an error looks like
gate        what every request passes first: how many there are, whose they are
bodies      what a request's JSON may hold
reading     from a body to the ids of its prompts
server      from prompts to a response, whole or as a stream
scheduler   one thread a model: answers join and leave its batch, and come out as text
answers     what a response's JSON looks like, whole and in pieces
metrics     what Prometheus is told
logs        what is logged of a client that breaks HTTP
page        the page: one file, no network
"""
