from agent.publish.publisher import Publisher
from agent.publish.stdout import StdoutPublisher
from agent.publish.websocket.limits import Limits
from agent.publish.websocket.registry import Registry
from agent.publish.websocket.server import Rules, Server
from agent.stream.feed import Feed
from agent.stream.filters import Filter

from ..feeding import AGENT


async def test_publishers_without_a_client_or_reader_end_with_the_feed() -> None:
    feed = Feed(AGENT)
    publishers: list[Publisher] = [
        StdoutPublisher(feed, Filter({"event": ["open"]})),
        Server(feed, [], Rules(), Registry(Limits()), {}),
    ]
    feed.stop()
    for publisher in publishers:
        await publisher.run()
        await publisher.stop()
