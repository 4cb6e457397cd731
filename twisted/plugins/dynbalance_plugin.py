from twisted.application.service import ServiceMaker

dynbalance = ServiceMaker(
    "dynbalance",
    "dynbalance.tap",
    "A load balancer for HTTP and TCP whose servers come and go at run time.",
    "dynbalance",
)
