"""
Drop-in for the standard library: what goes to the logger "business" becomes events.

The service's own configuration gets one handler and one logger more (as YAML or JSON it
looks the same); `bizlog.logging_config(...)` writes just these two. Operational logs
stay where they are, and no event is among them.
"""

import logging
import logging.config

import bizlog

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "stdout": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
            },
            "bizlog": {
                "()": "bizlog.BusinessEventHandler",
                "source": "order-service",
                "sinks": ["file:./bizlog-events"],
            },
        },
        "root": {"handlers": ["stdout"], "level": "INFO"},
        "loggers": {
            "business": {"handlers": ["bizlog"], "level": "DEBUG", "propagate": False},
        },
    }
)

log = logging.getLogger("order_service")
business = logging.getLogger("business.orders")

log.info("the shop opens")
with bizlog.session("sess-1", user_id="u-7"):
    # A mapping as the argument does the same: info("order.placed", {"order_id": 42}).
    business.info("order.placed", extra={"order_id": 42, "order_total": 19.98})
    business.info(bizlog.ProductEvent(event_type="product.viewed", product_id="1"))
log.info("the shop closes")

bizlog.flush()
print(bizlog.ledger())
