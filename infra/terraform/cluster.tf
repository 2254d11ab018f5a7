# An EKS cluster for those who have none: CPU nodes for generate and mix, GPU nodes for sft, both scaled from zero or one by
# whatever autoscaler runs in it; with gpu.managed = false Karpenter makes the GPU nodes. What is installed into it (training
# operator or Trainer with JobSet, NVIDIA's device plug-in, Kueue) is operators/'s or kubectl's.

data "aws_iam_policy_document" "assume" {
  for_each = var.create_cluster ? { cluster = "eks.amazonaws.com", node = "ec2.amazonaws.com" } : {}

  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = [each.value]
    }
  }
}

resource "aws_iam_role" "cluster" {
  count = var.create_cluster ? 1 : 0

  name               = "${var.cluster.name}-cluster"
  assume_role_policy = data.aws_iam_policy_document.assume["cluster"].json
}

resource "aws_iam_role_policy_attachment" "cluster" {
  count = var.create_cluster ? 1 : 0

  role       = aws_iam_role.cluster[0].name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_eks_cluster" "this" {
  count = var.create_cluster ? 1 : 0

  name     = var.cluster.name
  version  = var.cluster.version
  role_arn = aws_iam_role.cluster[0].arn

  vpc_config {
    subnet_ids              = var.cluster.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.cluster.public_access_cidrs) > 0
    public_access_cidrs     = length(var.cluster.public_access_cidrs) > 0 ? var.cluster.public_access_cidrs : null
  }

  depends_on = [aws_iam_role_policy_attachment.cluster]
}

resource "aws_iam_openid_connect_provider" "cluster" {
  count = var.create_cluster ? 1 : 0

  url            = aws_eks_cluster.this[0].identity[0].oidc[0].issuer
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "node" {
  count = var.create_cluster ? 1 : 0

  name               = "${var.cluster.name}-node"
  assume_role_policy = data.aws_iam_policy_document.assume["node"].json
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = var.create_cluster ? toset([
    "AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly"
  ]) : toset([])

  role       = aws_iam_role.node[0].name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

resource "aws_eks_node_group" "cpu" {
  count = var.create_cluster ? 1 : 0

  cluster_name    = aws_eks_cluster.this[0].name
  node_group_name = "cpu"
  node_role_arn   = aws_iam_role.node[0].arn
  subnet_ids      = var.cluster.subnet_ids
  instance_types  = var.cluster.cpu.instance_types

  scaling_config {
    min_size     = 1
    desired_size = 1
    max_size     = var.cluster.cpu.max_size
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}

# Spot: sft saves its state when told to stop and goes on elsewhere. One subnet, so that a job's nodes share a zone.
resource "aws_eks_node_group" "gpu" {
  count = var.create_cluster && var.cluster.gpu.managed ? 1 : 0

  cluster_name    = aws_eks_cluster.this[0].name
  node_group_name = var.cluster.gpu.capacity_type == "SPOT" ? "gpu-spot" : "gpu"
  node_role_arn   = aws_iam_role.node[0].arn
  subnet_ids      = slice(var.cluster.subnet_ids, 0, 1)
  instance_types  = var.cluster.gpu.instance_types
  capacity_type   = var.cluster.gpu.capacity_type
  ami_type        = "AL2023_x86_64_NVIDIA"
  disk_size       = var.cluster.gpu.disk_gib

  scaling_config {
    min_size     = 0
    desired_size = 0
    max_size     = var.cluster.gpu.max_size
  }

  # Nothing but what asks for a GPU lands here; k8s/overlays/gpu tolerates it.
  taint {
    key    = "nvidia.com/gpu"
    value  = "true"
    effect = "NO_SCHEDULE"
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}
