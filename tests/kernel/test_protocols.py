from agent.kernel.protocols import netlink_protocol, packet_protocol


def test_netlink_protocols_have_names_or_numbers() -> None:
    assert [netlink_protocol(number) for number in (0, 4, 22, 17)] == [
        "route", "sock_diag", "smc", "17"
    ]  # fmt: skip


def test_a_packet_protocol_is_an_ethertype_or_all() -> None:
    assert [packet_protocol(number) for number in (3, 0x0800, 0)] == ["*", "0x0800", "0x0000"]
