"""Lists in pages, as Cloud Map names their members."""

from collections.abc import Mapping

from fargate_agent.controlplane.pages import cut, parse_page
from fargate_agent.controlplane.validate import Json


def render_list(request: Json, items: Mapping[str, object], member: str) -> Json:
    """Return one page of items, in the order of their keys, under the name `member`.

    Raises:
        ApiError: the page that is asked for can't be.
    """
    page = parse_page(_asked(request))
    return _named(page.render(cut(sorted(items), page), member, lambda key: items[key]))


def render_map(request: Json, items: Mapping[str, object], member: str) -> Json:
    """Return one page of items by their keys.

    Raises:
        ApiError: the page that is asked for can't be.
    """
    page = parse_page(_asked(request))
    answer = _named(page.render(cut(sorted(items), page), member))
    return {**answer, member: {key: items[key] for key in answer[member]}}


def _asked(request: Json) -> Json:
    names = {"MaxResults": "maxResults", "NextToken": "nextToken"}
    return {names[member]: value for member, value in request.items() if member in names}


def _named(answer: Json) -> Json:
    token = answer.pop("nextToken", None)
    return answer if token is None else {**answer, "NextToken": token}
