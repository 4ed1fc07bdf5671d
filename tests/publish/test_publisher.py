from agent.publish import Publisher
from agent.publish.stdout import StdoutPublisher
from agent.publish.websocket.registry import Registry
from agent.publish.websocket.server import Rules, Server
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from ..feeding import AGENT
from .websocket.serving import LIMITS


async def test_publishers_without_a_client_or_reader_end_with_the_feed() -> None:
    feed = Feed(AGENT)
    publishers: list[Publisher] = [
        StdoutPublisher(feed, Filter({"event": ["open"]})),
        Server(feed, [], Rules(), Registry(LIMITS), {}),
    ]
    feed.stop()
    for publisher in publishers:
        await publisher.run()
        await publisher.stop()
