"""What processes say to each other, with a service that stands in for JAX's."""

import json

from jaxrec.parallel import team


class Service:
    """Keeps what is said; the second process answers whatever it is asked."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, name, value):
        assert name not in self.kept
        self.kept[name] = value

    def blocking_key_value_get(self, name, patience):
        if name.endswith("/1"):
            self.kept[name] = json.dumps("the other")
        return self.kept[name]

    def key_value_delete(self, name):
        gone = [key for key in self.kept if key == name or key.startswith(f"{name}/")]
        assert gone, "it was there"
        for key in gone:
            del self.kept[key]


def test_the_first_process_forgets_what_all_have_heard(monkeypatch):
    """A training of weeks says millions of things: the service holds what may still be asked for, and no more."""
    service = Service()
    monkeypatch.setattr(team, "service", lambda: service)
    monkeypatch.setattr(team, "size", lambda: 2)
    monkeypatch.setattr(team, "leads", lambda: True)
    for number in range(50):
        before = set(service.kept)
        assert team.agreed(number) == number
        assert before < set(service.kept), "the other may not have heard yet what was said before"
        assert team.united("mine") == ["mine", "the other"]
        assert not before & set(service.kept)
        assert len(service.kept) == 3
