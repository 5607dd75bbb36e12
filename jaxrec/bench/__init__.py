"""How to time honestly: a card of the machine, compilation apart from running, alternation between candidates."""
