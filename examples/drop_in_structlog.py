"""
Drop-in for structlog: one processor, first in the service's own chain.

Business events leave the chain there and go out through bizlog; the operational log
never shows them. Everything else passes through as before.
"""

import structlog

import bizlog

bizlog.configure(source="loan-service", sinks=["file:./bizlog-events"])
structlog.configure(  # noqa: TID251  # this is the host, not a library
    processors=[
        # The names of the catalogue and its families, and with a pattern your own.
        bizlog.divert("loan.*"),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    cache_logger_on_first_use=True,
)
log = structlog.get_logger()  # noqa: TID251  # as above

log.info("the office opens", desks=3)
log = log.bind(customer="c-9")
log.info("loan.approved", amount="1000.00")
log.info("order.placed", order_id=42)
log.warning("the printer is out of paper")

bizlog.flush()
print(bizlog.ledger())
