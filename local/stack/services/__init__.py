"""How each part of the stack is started: one file a part, all tied together by `catalogue`."""
