"""A grid whose nodes answer as a test has written it."""

import time

from flwr.app import ConfigRecord, Error, Message, RecordDict


class FakeGrid:
    """Answers as written, after its nodes have joined one by one. Only what no real runtime does on demand."""

    def __init__(self, answers, join_every=0.0):
        self.answers, self.join_every = answers, join_every
        self.started, self.waiting, self.pulls = time.monotonic(), {}, 0

    def get_node_ids(self):
        joined = len(self.answers) if not self.join_every else int((time.monotonic() - self.started) / self.join_every)
        return list(self.answers)[:joined]

    def push_messages(self, messages):
        assert isinstance(messages, list)
        for place, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = str(place)
            self.waiting[str(place)] = message
        return list(self.waiting)

    def pull_messages(self, ids):
        self.pulls += 1
        ready = [(i, m) for i, m in self.waiting.items() if i in ids and self.answers[m.metadata.dst_node_id]]
        for i, _ in ready:
            del self.waiting[i]
        answers = [(self.answers[m.metadata.dst_node_id], m) for _, m in ready]
        return [
            Message(said if isinstance(said, Error) else RecordDict({"identity": ConfigRecord(said)}), reply_to=m)
            for said, m in answers
        ]


def identity(name, code="x"):
    return {"silo": name, "code-hash": code, "contract": 1}
