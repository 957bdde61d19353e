//! The guest's PCI bus: host bridge, ISA bridge, and slots for virtio devices.
