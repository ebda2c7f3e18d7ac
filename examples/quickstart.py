"""
The three lines: import, get a logger, say what happened.

Nothing is configured here, so the events go to files below ./bizlog-events; they are
delivered when the script ends. Copy the lines into a service and name the sinks there:
bizlog.configure(source="my-service", sinks=["file:./events"]).
"""

from decimal import Decimal

import bizlog

log = bizlog.get_logger()
log.info("product.viewed", product_id="1", product_price=Decimal("9.99"))
