# One role a stage, each trusted by that stage's ServiceAccount alone, each able to do what its stage does and no more.

locals {
  oidc_provider_arn = var.create_cluster ? aws_iam_openid_connect_provider.cluster[0].arn : var.oidc_provider_arn
  # arn:aws:iam::<account>:oidc-provider/<issuer without https://>
  oidc_issuer  = local.oidc_provider_arn == null ? null : split(":oidc-provider/", local.oidc_provider_arn)[1]
  cluster_name = var.create_cluster ? var.cluster.name : var.cluster_name
  has_cluster  = var.create_cluster || (var.pod_identity ? var.cluster_name : var.oidc_provider_arn) != null

  # Prefixes under the bucket: what a stage reads, what it writes, and what it may delete again.
  stages = {
    generate = {
      reads   = ["knowledge/*", "*/generated/*"]
      writes  = ["*/generated/*"]
      deletes = ["*/generated/failure.json"] # what an earlier start has left for those that wait
    }
    mix = {
      reads   = ["sources/*", "recipes/*", "base/*", "*/generated/*", "*/mixture/*"]
      writes  = ["*/mixture/*"]
      deletes = ["*/mixture/*"] # a rerun cleans up after a killed one
    }
    sft = {
      reads   = ["base/*", "*/mixture/*", "*/model/*"]
      writes  = ["*/model/*"]
      deletes = ["*/model/state/*", "*/model/failure.json"] # states older than the newest few
    }
    eval = {
      reads   = ["base/*", "knowledge/*", "tasks/*", "*/mixture/*", "*/model/*", "*/evaluation/*"]
      writes  = ["*/evaluation/*", "*/model/evaluation.json"] # the model is told of its newest evaluation
      deletes = ["*/evaluation/*"]                            # a rerun cleans up after a killed one
    }
    report = {
      reads   = ["base/*", "*/generated/*", "*/mixture/*", "*/model/*", "*/evaluation/*", "*/report.html"]
      writes  = ["*/report.html"]
      deletes = []
    }
    resume = { # it waits for sft and for eval, and tells those that wait for them when it waits in vain
      reads   = ["*/mixture/*", "*/model/*", "*/evaluation/failure.json"]
      writes  = ["*/model/failure.json", "*/evaluation/failure.json"]
      deletes = ["*/model/failure.json", "*/evaluation/failure.json"]
    }
    serve = {
      reads   = ["base/*", "*/model/*"]
      writes  = []
      deletes = []
    }
  }
}

# EKS Pod Identity: the cluster's agent hands a pod its role's credentials; the association names the account.
data "aws_iam_policy_document" "trust_pods" {
  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]
    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }
  }
}

resource "aws_eks_pod_identity_association" "stage" {
  for_each = local.has_cluster && var.pod_identity ? local.stages : {}

  cluster_name    = local.cluster_name
  namespace       = var.namespace
  service_account = "nanosft-${each.key}"
  role_arn        = aws_iam_role.stage[each.key].arn

  depends_on = [aws_eks_addon.pod_identity]
}

resource "aws_eks_addon" "pod_identity" {
  count = var.create_cluster && var.pod_identity ? 1 : 0

  cluster_name = aws_eks_cluster.this[0].name
  addon_name   = "eks-pod-identity-agent"
  depends_on   = [aws_eks_node_group.cpu]
}

data "aws_iam_policy_document" "trust" {
  for_each = local.has_cluster && !var.pod_identity ? local.stages : {}

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [local.oidc_provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.oidc_issuer}:sub"
      values   = ["system:serviceaccount:${var.namespace}:nanosft-${each.key}"]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.oidc_issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "stage" {
  for_each = local.has_cluster ? local.stages : {}

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.store.arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [for prefix in each.value.reads : "${aws_s3_bucket.store.arn}/${prefix}"]
  }

  dynamic "statement" {
    for_each = length(each.value.writes) > 0 ? [each.value.writes] : []
    content {
      sid       = "Write"
      actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      resources = [for prefix in statement.value : "${aws_s3_bucket.store.arn}/${prefix}"]
    }
  }

  dynamic "statement" {
    for_each = length(each.value.deletes) > 0 ? [each.value.deletes] : []
    content {
      sid       = "Delete"
      actions   = ["s3:DeleteObject"]
      resources = [for prefix in statement.value : "${aws_s3_bucket.store.arn}/${prefix}"]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      sid       = "Encrypt"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "stage" {
  for_each = local.has_cluster ? local.stages : {}

  name               = "nanosft-${each.key}"
  description        = "nanosft ${each.key}, from the ServiceAccount nanosft-${each.key} in ${var.namespace}"
  assume_role_policy = var.pod_identity ? data.aws_iam_policy_document.trust_pods.json : data.aws_iam_policy_document.trust[each.key].json
}

resource "aws_iam_role_policy" "stage" {
  for_each = local.has_cluster ? local.stages : {}

  name   = "store"
  role   = aws_iam_role.stage[each.key].id
  policy = data.aws_iam_policy_document.stage[each.key].json
}
